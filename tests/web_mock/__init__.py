"""A small stand-in for the gateway, for looking at the page and for its tests: everything in memory, no model.

cd tests && python -m web_mock                 a town with a model, people and what they said (anna, correct horse)
cd tests && python -m web_mock --fresh         nobody has set it up yet (code: first)
cd tests && python -m web_mock --base          a base model without chat
"""
