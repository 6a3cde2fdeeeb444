"""The tests of Motify's contract notice when it is wrong: its rules are broken, one at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = "contracts/motify/Motify.sol"

#: What is there once, and what it becomes, by the function it is in (none: anywhere).
MUTANTS: dict[str, list[tuple[str, str]]] = {
    "": [
        ("MIN_AMOUNT = 1e6", "MIN_AMOUNT = 1e5"),
        ("FEE_BASIS_POINTS = 1_000", "FEE_BASIS_POINTS = 999"),
        ("DECLARATION_TIMEOUT = 7 days", "DECLARATION_TIMEOUT = 6 days"),
        ("FINALIZATION_TIMEOUT = 7 days", "FINALIZATION_TIMEOUT = 6 days"),
        ("LONGEST_LIST = 100", "LONGEST_LIST = 101"),
        ("require(msg.sender == owner, ", "require(true, "),
        ("_usdcAddress != address(0)", "true"),
    ],
    "setTokenAddress": [
        ("address(motifyToken) == address(0)", "true"),
        ("_tokenAddress != address(0)", "true"),
    ],
    "createChallenge": [
        ("_recipient != address(0)", "true"),
        ("block.timestamp < _startTime", "block.timestamp <= _startTime"),
        ("_startTime < _endTime", "_startTime <= _endTime"),
        ("uint256 id = nextChallengeId;", "uint256 id = nextChallengeId + 1;"),
        ("_whitelistedParticipants.length != 0", "true"),
        ("_invited[id][_whitelistedParticipants[i]]", "_invited[id][address(0)]"),
        ("isPrivate: _isPrivate", "isPrivate: false"),
        ("emit ChallengeCreated(id);", ""),
    ],
    "joinChallenge": [
        ("block.timestamp < challenge.startTime", "block.timestamp <= challenge.startTime"),
        ("_stakeAmount >= MIN_AMOUNT", "_stakeAmount > MIN_AMOUNT"),
        ("!challenge.isPrivate || ", "true || "),
        ("stake.initial == 0", "true"),
        ("discount > _stakeAmount", "false"),
        ("if (discount != 0) motifyToken", "if (discount == 1) motifyToken"),
        ("_stakeAmount - discount)", "_stakeAmount)"),
        ("stake.left = _stakeAmount;", ""),
        ("userChallenges[msg.sender].push(_challengeId);", ""),
        ("_members[_challengeId].push(msg.sender);", ""),
        ("emit ChallengeJoined(_challengeId, msg.sender);", ""),
    ],
    "declareResults": [
        ("block.timestamp >= challenge.endTime", "block.timestamp > challenge.endTime"),
        ("block.timestamp >= challenge.endTime", "block.timestamp + 1 >= challenge.endTime"),
        ("!challenge.resultsFinalized", "true"),
        ("_participants.length == _refundPercentages.length", "true"),
        ("external onlyOwner", "external"),
        ("        emit ResultsDeclared(_challengeId);", ""),
        ("uint256 i = 0;", "uint256 i = 1;"),
    ],
    "finalizeAndProcessDonations": [
        ("block.timestamp >= challenge.endTime,", "true,"),
        ("!challenge.resultsFinalized", "true"),
        ("challenge.declaredParticipants == _members[_challengeId].length", "true"),
        ("block.timestamp > challenge.endTime +", "block.timestamp >= challenge.endTime +"),
        ("msg.sender == owner || ", ""),
        ("fee - fee / 2;", "fee / 2;"),
        ("challenge.totalWinnerInitialStake != 0", "true"),
        ("donated - fee)", "donated)"),
        ("collectedFees += fee - backing", "collectedFees = fee - backing"),
        ("collectedFees += fee - backing", "collectedFees += fee"),
        ("emit DonationsFinalized(_challengeId);", ""),
    ],
    "claimRefund": [
        ("challenge.resultsFinalized,", "true,"),
        ("stake.left = 0;", ""),
        ("stake.initial * challenge.tokenPot", "refund * challenge.tokenPot"),
        ("refund != 0", "true"),
        ("motifyToken.mint(msg.sender, tokens)", "motifyToken.mint(address(this), tokens)"),
        ("_pay(msg.sender, refund);", ""),
    ],
    "claimTimeoutRefund": [
        ("!stake.declared,", "true,"),
        ("block.timestamp > challenge.endTime", "block.timestamp >= challenge.endTime"),
        ("stake.left = 0;", ""),
        ("_declare(challenge, stake, BASIS_POINTS_DIVISOR);", "stake.declared = true;"),
        ("_pay(msg.sender, refund);", "_pay(msg.sender, stake.left);"),
    ],
    "withdrawFees": [
        ("collectedFees = 0;", ""),
        ("amount != 0", "true"),
        ("_to != address(0)", "true"),
        ("external onlyOwner", "external"),
    ],
    "_declare": [
        ("basisPoints <= BASIS_POINTS_DIVISOR", "true"),
        ("basisPoints <= BASIS_POINTS_DIVISOR", "basisPoints < BASIS_POINTS_DIVISOR"),
        ("initial != 0", "true"),
        ("!stake.declared", "true"),
        (
            "initial * basisPoints / BASIS",
            "(initial * basisPoints + BASIS_POINTS_DIVISOR - 1) / BASIS",
        ),
        ("if (refund != 0) ", ""),
        ("InitialStake += initial", "InitialStake += refund"),
        ("stake.refundBasisPoints = basisPoints;", ""),
        ("totalDonationAmount += initial - refund", "totalDonationAmount += refund"),
        ("declaredParticipants += 1", "declaredParticipants += 2"),
    ],
    "_requireChallenge": [("id < nextChallengeId", "id <= nextChallengeId")],
    "getAllChallenges": [
        ("found[i] = _info(newest - 1 - i)", "found[i] = _info(i)"),
        ("_limit < LONGEST_LIST", "_limit <= LONGEST_LIST + 1"),
    ],
    "_moveUsdc": [
        ("if (!agreed) revert", "if (false) revert"),
        ("address(usdc).code.length != 0", "true"),
        ("address(usdc).code.length != 0", "false"),
        ("if (!done)", "if (false)"),
    ],
}
CASES = [(function, *change) for function, some in MUTANTS.items() for change in some]


def mutated(source: str, function: str, good: str, bad: str) -> str:
    """Return the source with one thing changed."""
    start = source.index(f"    function {function}(") if function else 0
    end = source.find("\n    function ", start + 1) if function else len(source)
    part = source[start : end if end != -1 else len(source)]
    assert part.count(good) == 1, f"{good!r} is in {function} {part.count(good)} times"
    return source[:start] + part.replace(good, bad) + source[start + len(part) :]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is needed of the project, in a folder that may be broken."""
    made = tmp_path_factory.mktemp("project")
    for name in ("src", "contracts", "scripts", "tests"):
        shutil.copytree(ROOT / name, made / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", made)
    (made / "node_modules").symlink_to(ROOT / "node_modules")
    return made


def run_of(copy: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Build a contract in the copy and test it there; gas is not what is asked about."""
    (copy / SOURCE).write_text(source)
    node = [sys.executable, "scripts/node.py", "contracts/build.mjs"]
    subprocess.run(node, cwd=copy, check=True, capture_output=True)
    tests = ["tests/chain/test_motify_contract.py", "tests/chain/test_motify_contract_money.py"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-xq", "-k", "not costs", *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_contract_itself_passes(copy: Path) -> None:
    run = run_of(copy, (ROOT / SOURCE).read_text())
    assert run.returncode == 0, run.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("function", "good", "bad"), CASES)
def test_a_broken_contract_is_noticed(copy: Path, function: str, good: str, bad: str) -> None:
    run = run_of(copy, mutated((ROOT / SOURCE).read_text(), function, good, bad))
    assert run.returncode == 1, run.stdout
    assert " failed" in run.stdout
