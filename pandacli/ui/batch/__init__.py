"""`panda batch`: what is seen of a run, while it goes on and when it is over.

display   what the run tells of, and which of the two ways it is shown
moment    how far the run is, as both ways show it
pace      how many of a thing there are in a second, of late
failures  what went wrong, and how often
moving    a picture that is drawn anew, on a terminal
lines     a line every few seconds, elsewhere
summary   the tables at the end
"""

from pandacli.ui.batch.display import BatchDisplay

__all__ = ["BatchDisplay"]
