"""`baton doctor`: what is wrong with a deployment's Redis, machine and workers. One file per thing looked at."""
