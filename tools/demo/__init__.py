"""The demo model: its world of coloured shapes, its language, its training and its measure."""
