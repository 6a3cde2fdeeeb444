// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {ERC721Enumerable} from "@openzeppelin/contracts/token/ERC721/extensions/ERC721Enumerable.sol";
import {ERC2981} from "@openzeppelin/contracts/token/common/ERC2981.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";

/// Our own reference of GLISK's published interface, for local chains and tests. It behaves as the
/// published contract was measured to, its surprises included: `revealTokens` does not ask whether
/// a token exists, and one token that is revealed already undoes the whole batch.
contract GliskNFT is ERC721Enumerable, AccessControl, ERC2981, ReentrancyGuard {
    using SafeERC20 for IERC20;

    bytes32 public constant KEEPER_ROLE = keccak256("KEEPER_ROLE");
    uint256 public constant MAX_BATCH_SIZE = 50;
    /// How long authors have for claiming after the season before the rest may be swept.
    uint256 public constant SWEEP_PROTECTION_PERIOD = 14 days;
    /// Half of a mint is its author's, the odd wei and the other half the treasury's. Nobody can
    /// claim for the zero address, so a mint without an author is the treasury's altogether.
    uint256 private constant AUTHOR_SHARE_DIVISOR = 2;
    uint96 private constant INITIAL_ROYALTY_BASIS_POINTS = 250;

    uint256 public nextTokenId = 1;
    uint256 public mintPrice;
    bool public seasonEnded;
    uint256 public seasonEndTime;
    uint256 public treasuryBalance;

    mapping(uint256 tokenId => address) public tokenPromptAuthor;
    mapping(address author => uint256) public authorClaimable;
    mapping(uint256 tokenId => bool) private _revealed;
    mapping(uint256 tokenId => string) private _uris;
    string private _placeholderURI;

    event BatchMinted(
        address indexed minter,
        address indexed promptAuthor,
        uint256 indexed startTokenId,
        uint256 quantity,
        uint256 totalPaid
    );
    event TokensRevealed(uint256[] tokenIds);
    event PlaceholderURIUpdated(string newURI);
    event MintPriceUpdated(uint256 oldPrice, uint256 newPrice);
    event SeasonEnded(uint256 timestamp);
    event AuthorClaimed(address indexed author, uint256 amount);
    event TreasuryWithdrawn(address indexed recipient, uint256 amount);
    event UnclaimedRewardsSwept(uint256 totalAmount, uint256 authorsCount);
    event DirectPaymentReceived(address indexed sender, uint256 amount);
    event ERC20Recovered(address indexed token, address indexed to, uint256 amount);
    event RoyaltyUpdated(address receiver, uint96 feeNumerator);

    error InvalidQuantity();
    error ExceedsMaxBatchSize();
    error InsufficientPayment();
    error MintingDisabled();
    error LengthMismatch();
    error AlreadyRevealed(uint256 tokenId);
    error NoBalance();
    error TransferFailed();
    error SeasonAlreadyEnded();
    error SeasonNotEnded();
    error SweepProtectionActive();

    constructor(
        string memory name_,
        string memory symbol_,
        string memory placeholderURI_,
        uint256 initialMintPrice_
    ) ERC721(name_, symbol_) {
        _placeholderURI = placeholderURI_;
        mintPrice = initialMintPrice_;
        _grantRole(DEFAULT_ADMIN_ROLE, msg.sender);
        _setDefaultRoyalty(msg.sender, INITIAL_ROYALTY_BASIS_POINTS);
    }

    receive() external payable {
        treasuryBalance += msg.value;
        emit DirectPaymentReceived(msg.sender, msg.value);
    }

    function mint(address promptAuthor, uint256 quantity) external payable nonReentrant {
        if (seasonEnded) revert MintingDisabled();
        if (quantity == 0) revert InvalidQuantity();
        if (quantity > MAX_BATCH_SIZE) revert ExceedsMaxBatchSize();
        if (msg.value < mintPrice * quantity) revert InsufficientPayment();

        uint256 start = nextTokenId;
        nextTokenId = start + quantity;
        uint256 authorShare = promptAuthor == address(0) ? 0 : msg.value / AUTHOR_SHARE_DIVISOR;
        authorClaimable[promptAuthor] += authorShare;
        treasuryBalance += msg.value - authorShare;

        for (uint256 i = 0; i < quantity; ++i) {
            tokenPromptAuthor[start + i] = promptAuthor;
            _safeMint(msg.sender, start + i);
        }
        emit BatchMinted(msg.sender, promptAuthor, start, quantity, msg.value);
    }

    /// Existence is not asked for: whoever mints the id later gets this URI, for ever.
    function revealTokens(uint256[] calldata tokenIds, string[] calldata uris) external {
        if (!hasRole(KEEPER_ROLE, msg.sender) && !hasRole(DEFAULT_ADMIN_ROLE, msg.sender)) {
            revert AccessControlUnauthorizedAccount(msg.sender, KEEPER_ROLE);
        }
        if (tokenIds.length != uris.length) revert LengthMismatch();
        for (uint256 i = 0; i < tokenIds.length; ++i) {
            uint256 tokenId = tokenIds[i];
            if (_revealed[tokenId]) revert AlreadyRevealed(tokenId);
            _revealed[tokenId] = true;
            _uris[tokenId] = uris[i];
        }
        emit TokensRevealed(tokenIds);
    }

    function isRevealed(uint256 tokenId) external view returns (bool) {
        return _revealed[tokenId];
    }

    function tokenURI(uint256 tokenId) public view override returns (string memory) {
        _requireOwned(tokenId);
        return _revealed[tokenId] ? _uris[tokenId] : _placeholderURI;
    }

    function claimAuthorRewards() external nonReentrant {
        uint256 amount = authorClaimable[msg.sender];
        if (amount == 0) revert NoBalance();
        authorClaimable[msg.sender] = 0;
        _send(msg.sender, amount);
        emit AuthorClaimed(msg.sender, amount);
    }

    function withdrawTreasury() external onlyRole(DEFAULT_ADMIN_ROLE) nonReentrant {
        uint256 amount = treasuryBalance;
        if (amount == 0) revert NoBalance();
        treasuryBalance = 0;
        _send(msg.sender, amount);
        emit TreasuryWithdrawn(msg.sender, amount);
    }

    function endSeason() external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (seasonEnded) revert SeasonAlreadyEnded();
        seasonEnded = true;
        seasonEndTime = block.timestamp;
        emit SeasonEnded(block.timestamp);
    }

    function sweepUnclaimedRewards(address[] calldata authors)
        external
        onlyRole(DEFAULT_ADMIN_ROLE)
    {
        if (!seasonEnded) revert SeasonNotEnded();
        if (block.timestamp < seasonEndTime + SWEEP_PROTECTION_PERIOD) {
            revert SweepProtectionActive();
        }
        uint256 total = 0;
        for (uint256 i = 0; i < authors.length; ++i) {
            total += authorClaimable[authors[i]];
            authorClaimable[authors[i]] = 0;
        }
        treasuryBalance += total;
        emit UnclaimedRewardsSwept(total, authors.length);
    }

    function setMintPrice(uint256 newPrice) external onlyRole(DEFAULT_ADMIN_ROLE) {
        emit MintPriceUpdated(mintPrice, newPrice);
        mintPrice = newPrice;
    }

    function setPlaceholderURI(string calldata newURI) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _placeholderURI = newURI;
        emit PlaceholderURIUpdated(newURI);
    }

    function setDefaultRoyalty(address receiver, uint96 feeNumerator)
        external
        onlyRole(DEFAULT_ADMIN_ROLE)
    {
        _setDefaultRoyalty(receiver, feeNumerator);
        emit RoyaltyUpdated(receiver, feeNumerator);
    }

    function recoverERC20(address tokenAddress, uint256 amount)
        external
        onlyRole(DEFAULT_ADMIN_ROLE)
    {
        IERC20(tokenAddress).safeTransfer(msg.sender, amount);
        emit ERC20Recovered(tokenAddress, msg.sender, amount);
    }

    function supportsInterface(bytes4 interfaceId)
        public
        view
        override(ERC721Enumerable, AccessControl, ERC2981)
        returns (bool)
    {
        return super.supportsInterface(interfaceId);
    }

    function _send(address to, uint256 amount) private {
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert TransferFailed();
    }
}
