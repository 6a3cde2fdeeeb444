// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC721Receiver} from "@openzeppelin/contracts/token/ERC721/IERC721Receiver.sol";

interface IMintable {
    function mint(address promptAuthor, uint256 quantity) external payable;
}

/// Mints twice in one transaction: a mint's key is its log, never its transaction.
contract DoubleMinter is IERC721Receiver {
    function mintTwice(
        IMintable nft,
        address firstAuthor,
        uint256 firstQuantity,
        address secondAuthor,
        uint256 secondQuantity
    ) external payable {
        uint256 each = msg.value / (firstQuantity + secondQuantity);
        nft.mint{value: each * firstQuantity}(firstAuthor, firstQuantity);
        nft.mint{value: each * secondQuantity}(secondAuthor, secondQuantity);
    }

    function onERC721Received(address, address, uint256, bytes calldata)
        external
        pure
        returns (bytes4)
    {
        return IERC721Receiver.onERC721Received.selector;
    }
}
