"""Films looked at through windows: answers with times, segments where something is to be seen."""
