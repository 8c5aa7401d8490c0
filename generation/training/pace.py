"""How fast a training goes on this machine, by a few of its steps, before it is decided on."""

import statistics
import time

from generation.training.data.training_set import TrainingSet
from generation.training.loop.learner import Learner
from generation.training.processes import launched_processes
from generation.training.recipe import TrainingRecipe
from generation.training.run import loop_settings
from generation.training.trainable import Trainable

TIMED = 3  # steps, after a first one that warms up


def seconds_a_step(family: Trainable, recipe: TrainingRecipe, images: TrainingSet) -> float:
    """The median of TIMED steps from scratch on `images`."""
    processes = launched_processes()
    course = family.course(recipe, None, images, processes)
    settings = loop_settings(recipe.training, processes.device)
    learner = Learner(course.objective, settings, processes)
    seconds = []
    for _ in range(1 + TIMED):
        started = time.perf_counter()
        learner.step(course.data).cpu()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
