"""Archives of partitions: exported as Parquet, read back, and only then let go; and brought back again."""
