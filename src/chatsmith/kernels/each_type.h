/* Includes the file named by EACH once for float and once for bfloat16: NUM is the type, GET and PUT convert it to
 * float and back (sixteen at a time: GET16 and PUT16), and FN(name) ends the name of a function in _float or _bf16. */
#define NUM float
#define NAME float
#define GET get_float
#define PUT put_float
#define GET16 get16_float
#define PUT16 put16_float
#define IS_FLOAT 1
#include EACH
#undef NUM
#undef NAME
#undef GET
#undef PUT
#undef GET16
#undef PUT16
#undef IS_FLOAT

#define NUM bf16
#define NAME bf16
#define GET get_bf16
#define PUT put_bf16
#define GET16 get16_bf16
#define PUT16 put16_bf16
#define IS_FLOAT 0
#include EACH
#undef NUM
#undef NAME
#undef GET
#undef PUT
#undef GET16
#undef PUT16
#undef IS_FLOAT
