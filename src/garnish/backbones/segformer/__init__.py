"""Reading and writing published SegFormers: their names, configuration and tensor names."""
