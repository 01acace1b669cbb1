"""A talking person that nobody is: random identity of the open head, painted, lit, animated and given a voice.

Everything follows from one seed and from code; nothing is downloaded and no real person is behind it. What is drawn
is known exactly (identity, expression, pose, gaze, camera), so that the clips can drive avatars, test tracking and
label training data.
"""

from .performance import Performance, perform
from .person import PersonState, SyntheticPerson
from .speech import write_wav

__all__ = ["Performance", "PersonState", "SyntheticPerson", "perform", "write_wav"]
