"""What a stage of CDM learns by: Improved DDPM's loss, told of a parent that is augmented."""

from dataclasses import replace

from torch import Tensor, nn

from generation.denoisers.learning import Loss, Questions
from generation.families.cdm.augmentation import augmented
from generation.families.cdm.recipe import CDMRecipe
from generation.families.openai_unet.objective import image_losses
from generation.training.data.images import DrawnImages


def cascade_loss(recipe: CDMRecipe) -> Loss:
    """The loss of a recipe's stage."""

    bound_alone = recipe.training.loss == "vlb"

    def loss(network: nn.Module, drawn: DrawnImages, questions: Questions) -> Tensor:
        question = questions.draw(drawn)
        if question.parent is not None:
            parent = augmented(question.parent, recipe.stage, drawn.rng)
            question = replace(question, parent=parent)
        said, _ = question.put_to(network)
        losses = image_losses(said, question, questions.schedule, bound_alone=bound_alone)
        return questions.mean(losses, question)

    return loss
