"""What is run by hand to make parts of Baton; nothing of it is shipped."""
