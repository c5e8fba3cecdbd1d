"""`panda chat`: a conversation about a clip, in a terminal or line by line.

talk        what is talked about and how: the clip, the model, the turns, the log
background  what is computed while the user types
session     the conversation in a terminal
lines       the conversation without one: a question a line, an answer a line
commands    what begins with a slash
prompt      where the user types
"""
