"""The policy pack: `pulumi preview --policy-pack infra/policypack`."""

import sys
from pathlib import Path

# The engine starts it in this folder; the rules are beside the program.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pulumi_policy import EnforcementLevel, PolicyPack

from infra.pack import policies

PolicyPack("eav-platform", policies(), enforcement_level=EnforcementLevel.MANDATORY)
