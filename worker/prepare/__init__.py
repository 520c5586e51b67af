"""From a job's messages to what a model family takes: decoded pictures, frames and signals."""
