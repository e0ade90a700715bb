"""The schemas of the platform: SQLAlchemy metadata, revisions and the lint that guards them."""
