"""Ask a panel of medical visual-question-answering models from Python.

    from consilium import ask

    verdict = ask("chest.dcm", "Is there a pleural effusion?")
    print(verdict.answer, verdict.agreement)

Research software, not a medical device.
"""

from consilium.client import GATEWAY_URL, AsyncClient, Client, ask
from consilium.errors import GatewayError, GatewayRefused, GatewayUnreachable
from consilium.verdict import Answer, PanelReport, Problem, Provisional, Verdict

__all__ = [
    "GATEWAY_URL",
    "Answer",
    "AsyncClient",
    "Client",
    "GatewayError",
    "GatewayRefused",
    "GatewayUnreachable",
    "PanelReport",
    "Problem",
    "Provisional",
    "Verdict",
    "ask",
]
