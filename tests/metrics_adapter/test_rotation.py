"""Certificates and CAs change while a hundred requests a second come in: none of them fails."""

from __future__ import annotations

from shared.certificates import make_ca
from tests.metrics_adapter.aggregator import METRIC, Question, Serving, front_proxy_of, trust, until_believed
from tests.metrics_adapter.api_server import GROUP
from tests.metrics_adapter.certificates import Authority
from tests.metrics_adapter.lab import Lab

DISCOVERY = Question(GROUP, [("X-Remote-User", "system:kube-aggregator")])
ENOUGH = 50
"""Requests between two changes: half a second, with five handshakes."""


async def test_every_certificate_and_ca_changes_under_load_and_no_request_fails(lab: Lab) -> None:
    """Each CA with overlap, as Kubernetes' documentation has it: the new one is trusted before it is used.

    The serving certificate anew under its CA, then its CA, then the CAs of the front proxy and of clients.
    """
    serving, old, new = Serving(lab.directory), Authority.make(), Authority.make()
    lab.files = serving.files
    first_ca, second_ca = serving.ca, make_ca("second serving CA")
    await trust(lab, old)
    aggregator = front_proxy_of(lab, serving, old.front_proxy())
    async with lab.running(), aggregator:
        await until_believed(lab, serving, old.front_proxy())
        async with aggregator.asking([METRIC, METRIC, METRIC, DISCOVERY]):
            await aggregator.more(ENOUGH)
            serving.issue()
            await aggregator.more(ENOUGH)

            aggregator.renew(cas=first_ca.certificate_pem + second_ca.certificate_pem)
            serving.issue(second_ca)
            await aggregator.more(ENOUGH)
            aggregator.renew(cas=second_ca.certificate_pem)  # so what is answered is signed by it
            await aggregator.more(ENOUGH)

            await trust(lab, old, new)
            await until_believed(lab, serving, new.front_proxy())
            aggregator.renew(certificate=new.front_proxy())
            await aggregator.more(ENOUGH)
            await trust(lab, new)
            await until_believed(lab, serving, old.front_proxy(), believed=False)
            await aggregator.more(ENOUGH)
    assert [answer for answer in aggregator.answers if answer.code != 200] == []
    assert len(aggregator.answers) >= 6 * ENOUGH


async def test_a_connection_is_judged_by_the_cas_of_the_moment(lab: Lab) -> None:
    """One that was opened under the old CA of the front proxy says nothing any more once that is dropped."""
    serving, old, new = Serving(lab.directory), Authority.make(), Authority.make()
    lab.files = serving.files
    await trust(lab, old)
    async with lab.running():
        await until_believed(lab, serving, old.front_proxy())
        async with front_proxy_of(lab, serving, old.front_proxy()) as aggregator:
            assert (await aggregator.ask(METRIC)).code == 200
            await trust(lab, new)
            await until_believed(lab, serving, new.front_proxy())
            assert (await aggregator.ask(METRIC)).code == 401
