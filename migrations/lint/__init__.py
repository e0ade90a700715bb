"""The lint of everything that PostgreSQL will run: `python -m migrations.lint`.

Five checks, each in a module of its own, each a function from the folder of the repository to an `Outcome`:

- `sqlfluff`       the style of every file under sql/                                 (`style`)
- `squawk`         the SQL of every revision: locks, rewrites, missing timeouts       (`revisions`)
- `pglast`         every function file: its syntax, inside too, and the house rules   (`functions`)
- `landed`         function files of the last release, which never change             (`landed`)
- `plpgsql_check`  every function of the migrated database, against its tables        (`database`)
"""
