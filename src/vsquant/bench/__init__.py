"""Speed: cases and contenders, timed side by side."""
