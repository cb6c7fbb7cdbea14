"""What backbones and refiners share: sizes, cards, weights, identities, costs."""
