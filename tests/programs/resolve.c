/* Asks the C library for each name, and prints a line of what it finds, or `fails`. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

int main(int count, char **names)
{
    for (int i = 1; i < count; i++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
        char text[INET6_ADDRSTRLEN];
        printf("%s", names[i]);
        if (getaddrinfo(names[i], NULL, &hints, &found) != 0) {
            puts(" fails");
            continue;
        }
        for (struct addrinfo *each = found; each; each = each->ai_next) {
            const void *address = each->ai_family == AF_INET
                ? (const void *)&((struct sockaddr_in *)each->ai_addr)->sin_addr
                : (const void *)&((struct sockaddr_in6 *)each->ai_addr)->sin6_addr;
            printf(" %s", inet_ntop(each->ai_family, address, text, sizeof text));
        }
        puts("");
        freeaddrinfo(found);
    }
    return 0;
}
