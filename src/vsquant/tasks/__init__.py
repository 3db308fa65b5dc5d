"""Real data, real models, real metrics. `vsquant.tasks.registry` makes a task from its name."""
