"""Model families, one file each: checkpoint layout, prompt, media preparation."""
