"""What a network costs on an accelerator: actions counted from layer shapes, times what each action takes."""
