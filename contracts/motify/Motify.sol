// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

interface IMotifyToken {
    function balanceOf(address account) external view returns (uint256);
    function mint(address to, uint256 amount) external;
    function burn(address from, uint256 amount) external;
}

/// Our own reference of Motify's published interface, for local chains and tests. It behaves as the
/// published contract was measured to. The texts it refuses with are the published ones where
/// callers depend on them, from `declareResults` to the reads; the others are ours.
///
/// Stakes are in USDC's smallest unit, shares in basis points, times in Unix seconds.
contract Motify {
    uint256 public constant MIN_AMOUNT = 1e6;
    uint256 public constant BASIS_POINTS_DIVISOR = 10_000;
    uint256 public constant FEE_BASIS_POINTS = 1_000;
    uint256 public constant DECLARATION_TIMEOUT = 7 days;
    uint256 public constant FINALIZATION_TIMEOUT = 7 days;
    uint256 public constant TOKENS_PER_USDC = 10_000;
    uint256 public constant USDC_DECIMALS = 6;
    uint256 public constant TOKEN_DECIMALS = 18;
    uint256 public constant DECIMAL_DIFF = TOKEN_DECIMALS - USDC_DECIMALS;

    /// What the smallest unit of USDC is worth, in the smallest units of the token.
    uint256 private constant TOKEN_UNITS_PER_USDC_UNIT = TOKENS_PER_USDC * 10 ** DECIMAL_DIFF;
    uint256 private constant LONGEST_LIST = 100;

    /// The order of the members is that of what `challenges` returns.
    struct Challenge {
        address recipient;
        uint256 startTime;
        uint256 endTime;
        bool isPrivate;
        string name;
        string apiType;
        string goalType;
        uint256 goalAmount;
        string description;
        uint256 totalDonationAmount;
        uint256 totalWinnerInitialStake;
        uint256 tokenPot;
        uint256 declaredParticipants;
        bool resultsFinalized;
    }

    struct Stake {
        uint256 initial;
        /// The stake until a result is declared, then the refund, and nothing once it is paid.
        uint256 left;
        uint256 refundBasisPoints;
        bool declared;
    }

    struct ParticipantInfo {
        address participantAddress;
        uint256 initialAmount;
        uint256 amount;
        uint256 refundPercentage;
        bool resultDeclared;
    }

    struct ChallengeInfo {
        uint256 challengeId;
        address recipient;
        uint256 startTime;
        uint256 endTime;
        bool isPrivate;
        string name;
        string apiType;
        string goalType;
        uint256 goalAmount;
        string description;
        uint256 totalDonationAmount;
        bool resultsFinalized;
        uint256 participantCount;
    }

    struct ChallengeDetail {
        uint256 challengeId;
        address recipient;
        uint256 startTime;
        uint256 endTime;
        bool isPrivate;
        string name;
        string apiType;
        string goalType;
        uint256 goalAmount;
        string description;
        uint256 totalDonationAmount;
        bool resultsFinalized;
        ParticipantInfo[] participants;
    }

    address public immutable owner;
    IERC20 public immutable usdc;
    IMotifyToken public motifyToken;
    uint256 public nextChallengeId;
    uint256 public collectedFees;

    mapping(uint256 => Challenge) public challenges;
    mapping(address => uint256[]) public userChallenges;
    mapping(uint256 challengeId => address[]) private _members;
    mapping(uint256 challengeId => mapping(address member => Stake)) private _stakes;
    mapping(uint256 challengeId => mapping(address person => bool)) private _invited;

    event ChallengeCreated(uint256 indexed challengeId);
    event ChallengeJoined(uint256 indexed challengeId, address indexed participant);
    event ResultsDeclared(uint256 indexed challengeId);
    event DonationsFinalized(uint256 indexed challengeId);
    event RefundClaimed(uint256 indexed challengeId, address indexed participant);
    event TimeoutRefundClaimed(uint256 indexed challengeId, address indexed participant);
    event FeesWithdrawn(address indexed to, uint256 amount);

    error SafeERC20FailedOperation(address token);

    modifier onlyOwner() {
        require(msg.sender == owner, "Not authorized");
        _;
    }

    constructor(address _usdcAddress) {
        require(_usdcAddress != address(0), "USDC is at no address");
        owner = msg.sender;
        usdc = IERC20(_usdcAddress);
    }

    function setTokenAddress(address _tokenAddress) external onlyOwner {
        require(_tokenAddress != address(0), "The token is at no address");
        require(address(motifyToken) == address(0), "The token is set already");
        motifyToken = IMotifyToken(_tokenAddress);
    }

    /// Nobody checks what the texts say or how long they are. The whitelist counts only for
    /// private challenges, and those need one.
    function createChallenge(
        address _recipient,
        uint256 _startTime,
        uint256 _endTime,
        bool _isPrivate,
        string calldata _name,
        string calldata _apiType,
        string calldata _goalType,
        uint256 _goalAmount,
        string calldata _description,
        address[] calldata _whitelistedParticipants
    ) external returns (uint256) {
        require(_recipient != address(0), "The recipient is at no address");
        require(block.timestamp < _startTime, "The start has passed");
        require(_startTime < _endTime, "The end is not after the start");

        uint256 id = nextChallengeId;
        nextChallengeId = id + 1;
        challenges[id] = Challenge({
            recipient: _recipient,
            startTime: _startTime,
            endTime: _endTime,
            isPrivate: _isPrivate,
            name: _name,
            apiType: _apiType,
            goalType: _goalType,
            goalAmount: _goalAmount,
            description: _description,
            totalDonationAmount: 0,
            totalWinnerInitialStake: 0,
            tokenPot: 0,
            declaredParticipants: 0,
            resultsFinalized: false
        });
        if (_isPrivate) {
            require(_whitelistedParticipants.length != 0, "Nobody is invited");
            for (uint256 i = 0; i < _whitelistedParticipants.length; ++i) {
                _invited[id][_whitelistedParticipants[i]] = true;
            }
        }
        emit ChallengeCreated(id);
        return id;
    }

    /// Whoever holds MOTIFY pays with it first, as far as it buys whole units of USDC.
    function joinChallenge(uint256 _challengeId, uint256 _stakeAmount) external {
        Challenge storage challenge = challenges[_challengeId];
        // An id that is not there yet starts at 0, and is refused by this as well.
        require(block.timestamp < challenge.startTime, "The challenge has started");
        require(_stakeAmount >= MIN_AMOUNT, "The stake is too small");
        require(
            !challenge.isPrivate || _invited[_challengeId][msg.sender],
            "You are not invited"
        );
        Stake storage stake = _stakes[_challengeId][msg.sender];
        require(stake.initial == 0, "You take part already");

        stake.initial = _stakeAmount;
        stake.left = _stakeAmount;
        _members[_challengeId].push(msg.sender);
        userChallenges[msg.sender].push(_challengeId);

        require(address(motifyToken) != address(0), "The token is not set");
        uint256 discount = motifyToken.balanceOf(msg.sender) / TOKEN_UNITS_PER_USDC_UNIT;
        if (discount > _stakeAmount) discount = _stakeAmount;
        if (discount != 0) motifyToken.burn(msg.sender, discount * TOKEN_UNITS_PER_USDC_UNIT);
        _moveUsdc(
            abi.encodeCall(
                IERC20.transferFrom, (msg.sender, address(this), _stakeAmount - discount)
            )
        );
        emit ChallengeJoined(_challengeId, msg.sender);
    }

    /// One element that is refused undoes the whole batch.
    function declareResults(
        uint256 _challengeId,
        address[] calldata _participants,
        uint256[] calldata _refundPercentages
    ) external onlyOwner {
        Challenge storage challenge = challenges[_challengeId];
        require(block.timestamp >= challenge.endTime, "Challenge not ended yet");
        require(!challenge.resultsFinalized, "Challenge results are already finalized");
        require(_participants.length == _refundPercentages.length, "Array length mismatch");
        for (uint256 i = 0; i < _participants.length; ++i) {
            _declare(challenge, _stakes[_challengeId][_participants[i]], _refundPercentages[i]);
        }
        emit ResultsDeclared(_challengeId);
    }

    function finalizeAndProcessDonations(uint256 _challengeId) external {
        Challenge storage challenge = challenges[_challengeId];
        require(block.timestamp >= challenge.endTime, "Challenge not ended yet");
        require(!challenge.resultsFinalized, "Donations have already been processed");
        require(
            challenge.declaredParticipants == _members[_challengeId].length,
            "Not all results declared"
        );
        require(
            msg.sender == owner || block.timestamp > challenge.endTime + FINALIZATION_TIMEOUT,
            "Only owner can finalize before timeout"
        );
        challenge.resultsFinalized = true;

        uint256 donated = challenge.totalDonationAmount;
        if (donated != 0) {
            uint256 fee = donated * FEE_BASIS_POINTS / BASIS_POINTS_DIVISOR;
            uint256 backing = 0;
            if (challenge.totalWinnerInitialStake != 0) {
                backing = fee - fee / 2; // the odd unit backs the pot
                challenge.tokenPot = backing * TOKEN_UNITS_PER_USDC_UNIT;
            }
            collectedFees += fee - backing;
            _pay(challenge.recipient, donated - fee);
        }
        emit DonationsFinalized(_challengeId);
    }

    function claimRefund(uint256 _challengeId) external {
        Challenge storage challenge = challenges[_challengeId];
        Stake storage stake = _stakes[_challengeId][msg.sender];
        require(challenge.resultsFinalized, "Challenge not finalized");
        uint256 refund = stake.left;
        require(refund != 0, "Nothing is left to claim");
        stake.left = 0;

        uint256 tokens = stake.initial * challenge.tokenPot / challenge.totalWinnerInitialStake;
        if (tokens != 0) motifyToken.mint(msg.sender, tokens);
        _pay(msg.sender, refund);
        emit RefundClaimed(_challengeId, msg.sender);
    }

    /// Counts as a winner for the pot, whose share stays unclaimed: nothing is left to claim with.
    function claimTimeoutRefund(uint256 _challengeId) external {
        Challenge storage challenge = challenges[_challengeId];
        Stake storage stake = _stakes[_challengeId][msg.sender];
        uint256 refund = stake.initial;
        require(refund != 0, "You do not take part");
        require(!stake.declared, "Your result is declared");
        require(
            block.timestamp > challenge.endTime + DECLARATION_TIMEOUT,
            "Results may still be declared"
        );
        _declare(challenge, stake, BASIS_POINTS_DIVISOR);
        stake.left = 0;
        _pay(msg.sender, refund);
        emit TimeoutRefundClaimed(_challengeId, msg.sender);
    }

    function withdrawFees(address _to) external onlyOwner {
        require(_to != address(0), "The fees go to no address");
        uint256 amount = collectedFees;
        require(amount != 0, "There are no fees");
        collectedFees = 0;
        _pay(_to, amount);
        emit FeesWithdrawn(_to, amount);
    }

    function getChallengeById(uint256 _challengeId)
        external
        view
        returns (ChallengeDetail memory)
    {
        _requireChallenge(_challengeId);
        Challenge storage challenge = challenges[_challengeId];
        address[] storage members = _members[_challengeId];
        ParticipantInfo[] memory participants = new ParticipantInfo[](members.length);
        for (uint256 i = 0; i < participants.length; ++i) {
            participants[i] = _stakeInfo(_challengeId, members[i]);
        }
        return ChallengeDetail({
            challengeId: _challengeId,
            recipient: challenge.recipient,
            startTime: challenge.startTime,
            endTime: challenge.endTime,
            isPrivate: challenge.isPrivate,
            name: challenge.name,
            apiType: challenge.apiType,
            goalType: challenge.goalType,
            goalAmount: challenge.goalAmount,
            description: challenge.description,
            totalDonationAmount: challenge.totalDonationAmount,
            resultsFinalized: challenge.resultsFinalized,
            participants: participants
        });
    }

    function getParticipantInfo(uint256 _challengeId, address _participant)
        external
        view
        returns (ParticipantInfo memory)
    {
        _requireChallenge(_challengeId);
        return _stakeInfo(_challengeId, _participant);
    }

    /// The newest first, and never more than a hundred of them.
    function getAllChallenges(uint256 _limit) external view returns (ChallengeInfo[] memory) {
        uint256 count = _limit < LONGEST_LIST ? _limit : LONGEST_LIST;
        uint256 newest = nextChallengeId;
        if (count > newest) count = newest;
        ChallengeInfo[] memory found = new ChallengeInfo[](count);
        for (uint256 i = 0; i < count; ++i) {
            found[i] = _info(newest - 1 - i);
        }
        return found;
    }

    /// In the order they were joined, all of them.
    function getChallengesForParticipant(address _participant)
        external
        view
        returns (ChallengeInfo[] memory)
    {
        uint256[] storage ids = userChallenges[_participant];
        ChallengeInfo[] memory found = new ChallengeInfo[](ids.length);
        for (uint256 i = 0; i < found.length; ++i) {
            found[i] = _info(ids[i]);
        }
        return found;
    }

    function _declare(Challenge storage challenge, Stake storage stake, uint256 basisPoints)
        private
    {
        require(basisPoints <= BASIS_POINTS_DIVISOR, "Invalid refund percentage");
        uint256 initial = stake.initial;
        require(initial != 0, "Participant not found");
        require(!stake.declared, "Result already declared for participant");

        uint256 refund = initial * basisPoints / BASIS_POINTS_DIVISOR;
        stake.left = refund;
        stake.refundBasisPoints = basisPoints;
        stake.declared = true;
        challenge.totalDonationAmount += initial - refund;
        if (refund != 0) challenge.totalWinnerInitialStake += initial;
        challenge.declaredParticipants += 1;
    }

    function _requireChallenge(uint256 id) private view {
        require(id < nextChallengeId, "Challenge does not exist");
    }

    function _stakeInfo(uint256 id, address member)
        private
        view
        returns (ParticipantInfo memory)
    {
        Stake storage stake = _stakes[id][member];
        return ParticipantInfo(
            member, stake.initial, stake.left, stake.refundBasisPoints, stake.declared
        );
    }

    function _info(uint256 id) private view returns (ChallengeInfo memory) {
        Challenge storage challenge = challenges[id];
        return ChallengeInfo({
            challengeId: id,
            recipient: challenge.recipient,
            startTime: challenge.startTime,
            endTime: challenge.endTime,
            isPrivate: challenge.isPrivate,
            name: challenge.name,
            apiType: challenge.apiType,
            goalType: challenge.goalType,
            goalAmount: challenge.goalAmount,
            description: challenge.description,
            totalDonationAmount: challenge.totalDonationAmount,
            resultsFinalized: challenge.resultsFinalized,
            participantCount: _members[id].length
        });
    }

    function _pay(address to, uint256 amount) private {
        _moveUsdc(abi.encodeCall(IERC20.transfer, (to, amount)));
    }

    /// A token that refuses says why; one that answers "no", or is not there, is named.
    function _moveUsdc(bytes memory transfer) private {
        (bool done, bytes memory answer) = address(usdc).call(transfer);
        if (!done) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
        bool agreed = answer.length == 0
            ? address(usdc).code.length != 0
            : abi.decode(answer, (bool));
        if (!agreed) revert SafeERC20FailedOperation(address(usdc));
    }
}
