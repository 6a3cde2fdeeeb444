// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// What is read of Farcaster's IdRegistry (Optimism): which fid an address has custody of.
contract TestIdRegistry {
    mapping(address custody => uint256 fid) public idOf;

    function register(address custody, uint256 fid) external {
        idOf[custody] = fid;
    }
}

/// What is read of Farcaster's KeyRegistry (Optimism): state and type of a key of an fid.
contract TestKeyRegistry {
    struct KeyData {
        uint8 state;
        uint32 keyType;
    }

    mapping(uint256 fid => mapping(bytes key => KeyData)) private _keys;

    function set(uint256 fid, bytes calldata key, uint8 state, uint32 keyType) external {
        _keys[fid][key] = KeyData(state, keyType);
    }

    function keyDataOf(uint256 fid, bytes calldata key) external view returns (KeyData memory) {
        return _keys[fid][key];
    }
}
