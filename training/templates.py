"""Templates of questions about moving shapes: question forms, verbs, openings."""

from training.scenes import DIRECTIONS

ANY_WAY = "any way"
"""In place of a motion: moving, whichever way."""

NUMBERS = ("Zero", "One", "Two", "Three")

VERBS = {
    **{way: f"moves {way}" for way in DIRECTIONS},
    "still": "stays still",
    "grows": "grows",
    "shrinks": "shrinks",
    "appears": "appears",
    "disappears": "disappears",
}

DESCRIBE_FORMS = (
    "What happens?",
    "What happens in the video?",
    "What happens in this clip?",
    "What is happening?",
    "What's happening in this video?",
    "What is going on?",
    "What is going on in the video?",
    "Describe the video.",
    "Describe this clip.",
    "Describe what happens.",
    "Describe what you see.",
    "What do you see?",
    "What can you see in the video?",
    "What is in the video?",
    "What does the video show?",
    "What is shown in this video?",
    "Tell me what happens.",
    "Can you describe the video?",
    "Summarize the video.",
    "Explain what is happening.",
    "What takes place in the clip?",
    "Give a description of the video.",
)

COUNT_FORMS = (
    "How many shapes are there?",
    "How many shapes are in the video?",
    "How many shapes do you see?",
    "How many shapes can you see?",
    "How many objects are there?",
    "How many objects are in the clip?",
    "How many objects appear in the video?",
    "How many figures are there?",
    "How many things are there?",
    "What is the number of shapes?",
    "Count the shapes.",
    "How many different shapes are shown?",
    "How many shapes are visible?",
)

BACKGROUND_FORMS = (
    "What colour is the background?",
    "What is the colour of the background?",
    "What is the background colour?",
    "Which colour is the background?",
    "What colour does the background have?",
    "What's the background colour?",
    "What colour is behind the shapes?",
    "Tell me the colour of the background.",
    "What is the background?",
    "Name the background colour.",
)

COLOUR_FORMS = (
    "What colour is {it}?",
    "What is the colour of {it}?",
    "Which colour is {it}?",
    "What colour does {it} have?",
    "What's the colour of {it}?",
    "Tell me the colour of {it}.",
    "Name the colour of {it}.",
)

KIND_FORMS = (
    "What shape is {it}?",
    "What is the shape of {it}?",
    "What kind of shape is {it}?",
    "Which shape is {it}?",
    "What type of shape is {it}?",
    "What form does {it} have?",
    "Name the shape of {it}.",
)

WHICH_FORMS = (
    "Which shape {does}?",
    "What shape {does}?",
    "What {does}?",
    "Which object {does}?",
    "Which one {does}?",
)

MOTION_FORMS = (
    "What does {it} do?",
    "What is {it} doing?",
    "What happens to {it}?",
    "How does {it} move?",
    "How does {it} behave?",
    "How does {it} change?",
    "Describe the motion of {it}.",
    "What is the motion of {it}?",
    "What is the movement of {it}?",
    "Describe what {it} does.",
)

DIRECTION_FORMS = (
    "Which way does {it} move?",
    "Which way does {it} go?",
    "Which way is {it} moving?",
    "In which direction does {it} move?",
    "In what direction is {it} moving?",
    "Which direction does {it} move?",
    "Which direction is {it} moving?",
    "Which direction does {it} go?",
    "What direction does {it} move in?",
    "What direction is {it} moving?",
    "What direction is {it} going?",
    "What is the direction of {it}?",
    "Where does {it} move?",
    "Where is {it} moving?",
    "Where does {it} go?",
    "To which side does {it} move?",
)

FIRST_FORMS = (
    "Which shape appears first?",
    "Which appears first?",
    "What appears first?",
    "Which object appears first?",
    "Which shape is seen first?",
    "What shape appears first?",
    "Which shape shows up first?",
    "Which one comes first?",
    "What is the first shape to appear?",
    "Which shape is visible first?",
)

ACTIVE_VERBS = {
    **{
        way: (f"moves {way}", f"is moving {way}", f"goes {way}", f"moves to the {way}")
        for way in ("left", "right")
    },
    **{
        way: (f"moves {way}", f"is moving {way}", f"goes {way}", f"moves {way}wards")
        for way in ("up", "down")
    },
    "still": ("stays still", "does not move", "is not moving", "stands still", "remains still"),
    "grows": ("grows", "is growing", "gets bigger", "gets larger", "becomes bigger"),
    "shrinks": ("shrinks", "is shrinking", "gets smaller", "becomes smaller"),
    "appears": ("appears", "shows up", "is appearing"),
    "disappears": ("disappears", "vanishes", "goes away", "is disappearing"),
    ANY_WAY: ("moves", "is moving"),
}

PARTICIPLES = {
    **{
        way: (f"moving {way}", f"moving {way}", f"going {way}", f"moving to the {way}")
        for way in ("left", "right")
    },
    **{
        way: (f"moving {way}", f"moving {way}", f"going {way}", f"moving {way}wards")
        for way in ("up", "down")
    },
    "still": ("staying still", "staying still", "standing still", "not moving"),
    "grows": ("growing", "growing", "getting bigger"),
    "shrinks": ("shrinking", "shrinking", "getting smaller"),
    "appears": ("appearing",),
    "disappears": ("disappearing", "disappearing", "vanishing"),
    ANY_WAY: ("moving",),
}

YES_NO_MOTION_FORMS = {
    **{
        way: (f"Does {{it}} move {way}?", f"Is {{it}} moving {way}?", f"Does {{it}} go {way}?")
        for way in DIRECTIONS
    },
    "still": ("Does {it} stay still?", "Is {it} still?", "Does {it} stand still?"),
    "grows": ("Does {it} grow?", "Is {it} growing?", "Does {it} get bigger?"),
    "shrinks": ("Does {it} shrink?", "Is {it} shrinking?", "Does {it} get smaller?"),
    "appears": ("Does {it} appear?", "Does {it} show up?"),
    "disappears": ("Does {it} disappear?", "Does {it} vanish?", "Does {it} go away?"),
    ANY_WAY: ("Does {it} move?", "Is {it} moving?"),
}

PRESENCE_FORMS = (
    "Is there {}?",
    "Is there {}?",
    "Is there {} in the video?",
    "Do you see {}?",
    "Can you see {}?",
    "Does the video show {}?",
)

OPENINGS = ("In the video, ", "In this clip, ", "Please tell me: ", "Please, ", "Now, ", "So, ")
