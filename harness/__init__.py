"""Which loss should train my speech model? Train, tune, confirm and rank every loss on the same real recordings."""
