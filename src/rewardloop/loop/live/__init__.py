"""Learning while the model is served: hear, refit, improve, publish, gate, let in; and go back where it goes astray.

`learner.LiveLearner.round` is the method on one page; `python -m rewardloop.loop.live` runs it as a process.
"""
