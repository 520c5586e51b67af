"""Files and batches: requests that wait in a file, are asked at low priority, and answered in another file."""
