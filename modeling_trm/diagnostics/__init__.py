"""See inside the recursion: what each step, cycle and update does to answer and latents, and which are dead."""
