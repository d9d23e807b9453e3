"""The flow data sets, one file each: where their files are, which make a pair, and what their splits are."""
