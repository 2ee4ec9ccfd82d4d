/* SPDX-License-Identifier: GPL-2.0 */
/*
 * SipHash-2-4 of a parent's id and a name; see struct mapdev_header.
 */
#ifndef MAPDEV_MAP_HASH_H
#define MAPDEV_MAP_HASH_H

#include "map.h"

static inline u64 rol(u64 word, int bits)
{
	return word << bits | word >> (64 - bits);
}

static inline void sip_round(u64 s[4])
{
	s[0] += s[1];
	s[2] += s[3];
	s[1] = rol(s[1], 13) ^ s[0];
	s[3] = rol(s[3], 16) ^ s[2];
	s[0] = rol(s[0], 32);
	s[2] += s[1];
	s[0] += s[3];
	s[1] = rol(s[1], 17) ^ s[2];
	s[3] = rol(s[3], 21) ^ s[0];
	s[2] = rol(s[2], 32);
}

static inline void sip_word(u64 s[4], u64 word)
{
	s[3] ^= word;
	sip_round(s);
	sip_round(s);
	s[0] ^= word;
}

/* @len bytes, at most 8, as a little endian number */
static inline u64 le_word(const char *bytes, u32 len)
{
	u64 word = 0;

	while (len--)
		word = word << 8 | (unsigned char)bytes[len];
	return word;
}

static inline u64 mapdev_hash(const u64 seed[2], u64 parent,
			      const char *name, u32 len)
{
	u64 s[4] = {
		seed[0] ^ 0x736f6d6570736575ULL,
		seed[1] ^ 0x646f72616e646f6dULL,
		seed[0] ^ 0x6c7967656e657261ULL,
		seed[1] ^ 0x7465646279746573ULL,
	};
	u64 total = (u64)len + 8;

	sip_word(s, parent);
	for (; len >= 8; len -= 8, name += 8)
		sip_word(s, le_word(name, 8));
	sip_word(s, total << 56 | le_word(name, len));
	s[2] ^= 0xff;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	sip_round(s);
	return s[0] ^ s[1] ^ s[2] ^ s[3];
}

#endif /* MAPDEV_MAP_HASH_H */
