// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// A contract that fails in every way there is, when it is asked to.
contract Troubles {
    error NotEnough(uint256 wanted, uint256 given);

    event Paid(address indexed from, uint256 amount);

    uint256 private constant PRICE = 1 ether;
    address public last;

    /// Succeeds.
    function pay() external payable {
        last = msg.sender;
        emit Paid(msg.sender, msg.value);
    }

    /// Fails with a custom error and its arguments.
    function buy() external payable {
        if (msg.value < PRICE) revert NotEnough(PRICE, msg.value);
        last = msg.sender;
    }

    /// Fails with a text.
    function open() external {
        require(last == address(0xdead), "the market is closed");
        last = msg.sender;
    }

    /// Fails with a panic: a division by zero.
    function divide(uint256 by) external {
        last = address(uint160(100 / by));
    }

    /// Fails without a word.
    function silent() external {
        last = msg.sender;
        assembly {
            revert(0, 0)
        }
    }

    /// Fails in a call within the call.
    function deep() external {
        last = msg.sender;
        this.open();
    }

    /// Uses all the gas it is given.
    function burn() external {
        while (true) last = msg.sender;
    }
}
