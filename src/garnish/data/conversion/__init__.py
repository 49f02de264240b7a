"""Writing any data set that garnish reads as a plain folder, and unpacking Parquet files into one."""
