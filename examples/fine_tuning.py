"""Make a trained network robust in a few epochs, instead of training from scratch.

python examples/fine_tuning.py
"""

from dataclasses import replace

import nuat
from nuat.data import load_dataset

EPOCHS = 5
START = "nuat:digits/normal"  # or a run folder, or a weights file

recipe = nuat.get_recipe("nuat-wa", "digits").with_epochs(EPOCHS)
recipe = replace(recipe, lr=nuat.triangle(0.0, 0.05, up=1, down=EPOCHS - 1))  # a lower peak
run = nuat.fit(recipe, init=START, out="runs/fine-tuned")

for source in (START, run.path):
    model = nuat.load_model(source).model
    scores = nuat.evaluate(model, load_dataset("digits").test, recipe.ball, ["pgd-20"])
    print(f"clean {scores.clean_accuracy:.1%}, robust {scores.worst_case_accuracy:.1%}: {source}")
