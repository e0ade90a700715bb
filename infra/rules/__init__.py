"""The rules, a module for each part of the platform; `infra.policies` gathers and applies them."""
