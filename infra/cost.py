"""A budget, and a stack that rests at night and at weekends."""

from __future__ import annotations

import pulumi

from infra.component import Component, Context
from infra.notices import Notices
from infra.postgres import Postgres
from infra.workers import Workers


class Cost(Component):
    """A budget, and a stack that rests at night and at weekends.

    Attributes: `budget` (aws.budgets.Budget).
    """

    KIND = "cost"

    def __init__(
        self,
        context: Context,
        notices: Notices,
        postgres: Postgres,
        workers: Workers,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.register_outputs({})
