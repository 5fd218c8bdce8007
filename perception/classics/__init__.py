"""The classic networks, from LeNet to Xception: windows, localisation, the tour. Nothing else depends on them.

Importing this package makes its classifiers known to `perception.networks.classifier.build_classifier`, and its task,
``localisation``, to training.
"""

from perception.classics.classifiers import CLASSICS
from perception.classics.localisation.recipe import LocalisationConfig
from perception.classics.localisation.task import LocalisationTask
from perception.networks.classifier import CLASSIFIERS
from perception.training.recipes.read import RECIPES
from perception.training.tasks.kinds import TASKS

CLASSIFIERS.update(CLASSICS)
RECIPES["localisation"] = LocalisationConfig
TASKS[LocalisationConfig] = LocalisationTask
