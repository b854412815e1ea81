/* freeze NAME=FILE...: compile Python sources into a table of frozen modules, on stdout as C.
 *
 * Linked with the libpython that the plugin is linked with: what compiles is by construction the
 * very version that runs. Docstrings and asserts are left out (optimize 2). Nothing of the
 * machine goes into the code, so the same sources give the same bytes.
 */
#include <Python.h>
#include <marshal.h>
#include <stdio.h>
#include <string.h>

enum { MOST = 1 << 20 };

static char text[MOST];

static const char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    size_t size = fread(text, 1, MOST - 1, file);
    text[size] = 0;
    fclose(file);
    return size < MOST - 1 && strlen(text) == size ? text : NULL;
}

static int freeze(int number, const char *name, const char *path)
{
    char shown[256];
    const char *source = read_file(path);
    if (!source) {
        fprintf(stderr, "freeze: %s cannot be read, or is no text under 1 MiB\n", path);
        return 1;
    }
    snprintf(shown, sizeof shown, "<frozen %s>", name);
    PyObject *code = Py_CompileStringExFlags(source, shown, Py_file_input, NULL, 2);
    PyObject *bytes = code ? PyMarshal_WriteObjectToString(code, Py_MARSHAL_VERSION) : NULL;
    if (!bytes) {
        PyErr_Print();
        return 1;
    }
    printf("static const unsigned char code_%d[] = {", number);
    for (Py_ssize_t i = 0; i < PyBytes_GET_SIZE(bytes); i++)
        printf("%s%u,", i % 24 ? "" : "\n", (unsigned char)PyBytes_AS_STRING(bytes)[i]);
    puts("\n};");
    return 0;
}

int main(int count, char **argument)
{
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.use_hash_seed = 1; /* sets in code are written in the order of their hashes */
    config._init_main = 0;    /* compiling needs no standard library */
    if (PyStatus_Exception(Py_InitializeFromConfig(&config)))
        return 1;
    printf("/* Made by freeze.c with Python %s. */\n#include <Python.h>\n", PY_VERSION);
    for (int i = 1; i < count; i++) {
        char *path = strchr(argument[i], '=');
        if (!path)
            return 1;
        *path++ = 0;
        if (freeze(i, argument[i], path))
            return 1;
    }
    puts("const struct _frozen enid_frozen[] = {");
    for (int i = 1; i < count; i++)
        printf("    {\"%s\", code_%d, sizeof code_%d, 0},\n", argument[i], i, i);
    puts("    {NULL, NULL, 0, 0},\n};");
    return 0;
}
