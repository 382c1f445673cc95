"""`celery-hpa check`: what is missing or wrong in a cluster, in plain words.

It stands beside both services and needs nothing of their insides: a shell takes a picture of the cluster and
of the brokers, pure checks say what they see in it, each in a sentence with what to do.
"""
