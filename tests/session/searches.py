"""Specs of searches."""

from tests.small import UNTIMED

STUDENTS = (
    UNTIMED
    + """\
sweep:
  - set: {evaluate.methods: [student]}
    search:
      trials: 7
      sampler: SAMPLER
      objectives: {miou: maximize}
      prune: true
      space:
        student.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
        student.epochs: {low: 2, high: 6, integer: true}
        student.optimiser: {choices: [adamw, sgd]}
      enqueue: [{student.learning_rate: 1.0e-3, student.epochs: 4, student.optimiser: adamw}]
"""
)
TEACHERS = (
    UNTIMED
    + """\
sweep:
  - set: {evaluate.methods: [teacher]}
    search:
      trials: 5
      seed: 3
      sampler: random
      objectives: {miou: maximize, gflops: minimize}
      space:
        teacher.window_px: {choices: [32, 64]}
        teacher.stride_px: {choices: [16, 32, 64]}
      enqueue: [{teacher.window_px: 64, teacher.stride_px: 64}]
"""
)
"""Two objectives; one of the six points, a stride of 64 for a window of 32, is impossible."""
LAGGING = (
    UNTIMED
    + """\
sweep:
  - set: {evaluate.methods: [student]}
    search:
      trials: 5
      sampler: random
      objectives: {miou: maximize}
      prune: true
      space:
        student.learning_rate: {choices: [1.0e-3, 1.0e-7]}
        student.epochs: {choices: [3, 4, 5]}
      enqueue:
        - {student.learning_rate: 1.0e-3, student.epochs: 3}
        - {student.learning_rate: 1.0e-3, student.epochs: 4}
        - {student.learning_rate: 1.0e-3, student.epochs: 5}
        - {student.learning_rate: 1.0e-7, student.epochs: 4}
        - {student.learning_rate: 1.0e-7, student.epochs: 5}
"""
)
"""The last two students hardly learn, and are pruned."""
