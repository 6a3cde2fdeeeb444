// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// The validator of ERC-6492, run off chain only: `eth_call` without a destination, with this
/// contract's creation code and `abi.encode(signer, hash, signature)` behind it. It is never
/// deployed; what it "leaves as its code" is one byte, 1 for a valid signature and 0 for any other.
///
/// In the order the ERC asks for:
/// 1. A signature ending in the ERC's magic bytes wraps (factory, factory calldata, signature). A
///    wallet that is there already is asked first, so that keys it has since given up are not
///    accepted; when it says no, or is not there, the factory is called and the wallet asked again.
/// 2. A signer with code is asked by ERC-1271.
/// 3. Any other signer must have signed with the key of its address.
///
/// What the wallet and the factory do can only make the answer 0, except for a wrapper that does not
/// decode: that reverts.
contract SignatureValidator {
    bytes32 private constant WRAPPED =
        0x6492649264926492649264926492649264926492649264926492649264926492;
    bytes4 private constant IS_VALID_SIGNATURE = 0x1626ba7e;
    uint256 private constant HALF_ORDER =
        0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    constructor(address signer, bytes32 hash, bytes memory signature) {
        bool valid = _isValid(signer, hash, signature);
        assembly {
            mstore(0, valid)
            return(31, 1)
        }
    }

    function _isValid(address signer, bytes32 hash, bytes memory signature)
        private
        returns (bool)
    {
        if (_endsWrapped(signature)) {
            (address factory, bytes memory preparation, bytes memory inner) =
                abi.decode(_withoutEnd(signature), (address, bytes, bytes));
            if (signer.code.length != 0 && _accepts(signer, hash, inner)) return true;
            _run(factory, preparation);
            return signer.code.length != 0 && _accepts(signer, hash, inner);
        }
        if (signer.code.length != 0) return _accepts(signer, hash, signature);
        return _signedByKey(signer, hash, signature);
    }

    function _endsWrapped(bytes memory signature) private pure returns (bool) {
        if (signature.length < 32) return false;
        bytes32 end;
        assembly {
            end := mload(add(signature, mload(signature)))
        }
        return end == WRAPPED;
    }

    function _withoutEnd(bytes memory signature) private pure returns (bytes memory wrapper) {
        // In place: the memory behind stays, only the length is less.
        assembly {
            mstore(signature, sub(mload(signature), 32))
            wrapper := signature
        }
    }

    /// Deploys the wallet, or prepares it; whether it worked shows when the wallet is asked.
    function _run(address factory, bytes memory preparation) private {
        assembly {
            pop(call(gas(), factory, 0, add(preparation, 32), mload(preparation), 0, 0))
        }
    }

    /// ERC-1271. No more than one word of the answer is copied, however long it is.
    function _accepts(address signer, bytes32 hash, bytes memory signature)
        private
        view
        returns (bool)
    {
        bytes memory question = abi.encodeWithSelector(IS_VALID_SIGNATURE, hash, signature);
        bool answered;
        bytes32 answer;
        assembly {
            mstore(0, 0)
            answered := staticcall(gas(), signer, add(question, 32), mload(question), 0, 32)
            answered := and(answered, gt(returndatasize(), 31))
            answer := mload(0)
        }
        return answered && answer == bytes32(IS_VALID_SIGNATURE);
    }

    function _signedByKey(address signer, bytes32 hash, bytes memory signature)
        private
        pure
        returns (bool)
    {
        if (signature.length != 65) return false;
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
            v := byte(0, mload(add(signature, 96)))
        }
        if (uint256(s) > HALF_ORDER) return false;
        address found = ecrecover(hash, v, r, s);
        return found != address(0) && found == signer;
    }
}
