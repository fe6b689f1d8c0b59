"""The hair or headgear that surrounds the head: its thickness all round and its surface."""
