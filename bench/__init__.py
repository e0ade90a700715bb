"""Side by side with the reference designs, on one server, interleaved; ratios count, not times."""
