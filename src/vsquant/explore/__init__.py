"""From a declared space of formats to evaluated points: accuracy, bytes, time and hardware cost of each."""
