"""What docs/measurements.md is measured with; each file prints one table, compared within one run."""
