SCHEMA = "eav"
