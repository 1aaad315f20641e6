"""Why there is no verdict."""

from typing import Optional

from consilium.verdict import Problem

MAY_PASS = {429, 502, 503, 504}  # the gateway, or what stands before it, may take it later


class GatewayError(Exception):
    """There is no verdict; the message says why in one sentence. Where it `may_pass`, the same
    case may be answered later, after `retry_after_s` if that was told."""

    def __init__(self, message: str, may_pass: bool = False, retry_after_s: Optional[float] = None):
        super().__init__(message)
        self.may_pass, self.retry_after_s = may_pass, retry_after_s


class GatewayUnreachable(GatewayError):
    """Nothing answered at this address, or not in time, or it is no gateway."""


class GatewayRefused(GatewayError):
    """The gateway answered with a problem, or what stands before it takes nothing so large; the
    message is the problem's detail."""

    def __init__(self, problem: Problem, retry_after_s: Optional[float] = None):
        # Where the workers were asked, only who was down may say something else another time.
        failed = [a.error.kind for a in problem.answers or () if a.error]
        may_pass = problem.status in MAY_PASS and (not failed or "unreachable" in failed)
        super().__init__(problem.detail, may_pass, retry_after_s)
        self.problem = problem
