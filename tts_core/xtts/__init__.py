"""XTTS-v2, in the order in which to read it.

engine          the SpeechEngine: texts and voices in, audio out
loop            what happens on the device's thread (device_thread): decide, launch, take in, deliver
scheduler       whose turn it is, of sequences; pure
runner          a step on the device: prompts, one code for each slot (graphs), vocoder windows
gpt, sampler    the model's pass over KV slots, and the next code
linear, precision, memory    in which numbers, how many slots
guard           is this still speech?
vocoder, hifigan             latents to samples, in windows that join without a seam
voice_encoder, perceiver, speaker_encoder    clips to a voice
reading         text to text ids
model, files, config, weights, checkpoint    what lies on the disk
"""
